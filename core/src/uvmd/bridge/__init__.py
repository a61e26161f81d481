"""The bridge protocol: frames, messages and HRESULTs; what a host may ask and how it is answered."""
