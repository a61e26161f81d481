"""Security policies in Rego: the enforcer ``rego``."""
