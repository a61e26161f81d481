"""What holds for every test of the repository, a plugin's own tests included."""

pytest_plugins = ["support.rules", "support.fixtures", "guest.harness.fixtures"]
