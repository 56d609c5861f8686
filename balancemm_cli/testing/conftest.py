"""What all tests of the contract share."""

from collections.abc import Callable, Iterator

import pytest
import torch

from balancemm_cli.testing.processes import Together


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the mark, where the tests are another package's."""
    config.addinivalue_line("markers", "long: what a shorter test shows as well, at length")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The networks are tiny: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compile_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Compile by tracing alone, for to generate code takes its time, and a compiler: by the backend "aot_eager" forward
    and backward, by "eager" forward alone."""

    def choose(backend: str) -> None:
        whole = torch.compile
        monkeypatch.setattr(
            torch, "compile", lambda *given, **named: whole(*given, **{**named, "backend": backend})
        )
        torch.compiler.reset()

    return choose


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
