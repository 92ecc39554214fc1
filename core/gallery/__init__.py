"""A gallery folder: places described by one model, and the index that searches them."""

from core.gallery.build import BuildReport, GallerySettings, SkippedTile, build_gallery
from core.gallery.folder import Gallery

__all__ = ["BuildReport", "Gallery", "GallerySettings", "SkippedTile", "build_gallery"]
