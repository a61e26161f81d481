"""The verbs of ``uvmctl``, one module a verb (or a few that are alike).

``app`` knows their names, ``settings`` what they share: options, the connection, notes of
progress. What a verb does on the wire is ``uvmd.client``'s business, not written here.
"""
