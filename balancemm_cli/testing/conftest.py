"""What all tests of the contract share."""

from collections.abc import Iterator

import pytest
import torch

from balancemm_cli.testing.processes import Together


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The networks are tiny: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile by tracing alone: to generate code takes its time, and a compiler."""
    whole = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda *given, **named: whole(*given, **{**named, "backend": "aot_eager"})
    )
    torch.compiler.reset()


@pytest.fixture(scope="module")
def together(request: pytest.FixtureRequest) -> Together:
    """The cases that the module names for what is to be tested, trained in one process and in two."""
    asked = [
        item.callspec.params
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and "together" in item.fixturenames
    ]
    names = [str(name) for params in asked for name in params.values()]
    return Together({name: request.module.cases_of_two_processes(name) for name in names})
