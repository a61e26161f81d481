"""The gate in front of everything a host asks for, and the two built-in stances."""
