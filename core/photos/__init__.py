"""A street photo: opened, what its file says, and the canvas that a model sees."""

from core.photos.opening import Photo, open_photo

__all__ = ["Photo", "open_photo"]
