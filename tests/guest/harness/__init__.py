"""Guests for tests: virtual machines that are booted once and restored in about a second.

``guest.py`` is what tests see; docs/guest-tests.md explains it from a test's side.
"""
