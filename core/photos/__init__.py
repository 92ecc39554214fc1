"""A street photo: opening it, its metadata, and the canvas for a model."""

from core.photos.opening import Photo, open_photo

__all__ = ["Photo", "open_photo"]
