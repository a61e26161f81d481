"""Fixtures that every test may ask for. Filled in by the harness modules beside this one."""
