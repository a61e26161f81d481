"""The recipe of the image is a program beside the package, so its folder goes onto the path."""

from __future__ import annotations

from guest.harness import image

image.recipe()
