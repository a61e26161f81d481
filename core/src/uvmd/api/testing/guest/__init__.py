"""A virtual machine for tests: booted from an image, with an author's plugin in its uvmd.

``fixtures`` is what tests use (``pytest_plugins = ["uvmd.api.testing.guest.fixtures"]``); the
tutorial shows it. It needs QEMU and an image's folder, and no root.

``guest``     an author's guest: the image as delivered, what is brought, and a client as its host
``vm``        what every guest has: commands and functions in it, hardware that comes and goes
``inside``    the programs that run in the guest, on its bare Python
"""
