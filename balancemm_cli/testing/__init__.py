"""The contract of methods, models, encoders, data sets and tasks, as tests over everything that is registered.

    pytest --pyargs balancemm_cli.testing -k fixed-drop

holds a method of that name against it, wherever it comes from: what another package announces is registered once it
is installed. pytest is needed for this room alone. A test's docstring says what must hold.
"""
