"""What can go wrong when an image is made or read.

Kept apart from ``uvmd.errors``' tree, which names conditions inside the VM; both share its
root, so ``except UvmdError`` catches either. Every text names the entry or the offset.
"""

from __future__ import annotations

import errno

from uvmd.errors import UvmdError


class ImageError(UvmdError):
    """Base of what the image tool raises."""


class BadSource(ImageError):
    """The directory, tar or OCI layout cannot be turned into an image; says what to do."""


class BadImage(ImageError):
    """The file is not a layer image, or is not what it claims."""


class NoSpace(ImageError):
    """The image, or a decompressed copy of its source, does not fit where it should go."""


def system_error(error: OSError, tried: str) -> ImageError:
    """Return what to raise for a failed call while writing; *tried* says what was done to what."""
    text = f"{tried}: {error.strerror} (errno {error.errno})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(text)
    return ImageError(text)
