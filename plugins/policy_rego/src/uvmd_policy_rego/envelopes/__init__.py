"""Signed artefacts: COSE envelopes, certificate chains, did:x509, receipts, trust lists.

Imported when the first fragment comes. Everything that a stranger wrote is read here and
nowhere else; what comes out are plain values. What a policy says of them is ``fragments``'
business, and the gate's.
"""
