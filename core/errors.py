"""All errors that a user can cause, as one tree.

CoreError
├── PhotoError        a street photo that cannot be opened, or a field of view that makes no sense
├── RasterError       aerial imagery that cannot be read, has no CRS, or is empty
├── GalleryError      a gallery folder that is missing, damaged, or built by another model
├── CheckpointError   a model folder or an authors' checkpoint that cannot be loaded
├── WorldError        a rendered world that cannot be built or read
├── DataError         a data set that is missing or not in its published layout
├── ParityError       two computations that must agree and do not
└── SettingError      a setting that is outside what is allowed

Messages have one form: what, which, got, expected, what to do. The page shows them as they are;
the command line prints them on one line and exits with code 1.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "CoreError",
    "DataError",
    "GalleryError",
    "ParityError",
    "PhotoError",
    "RasterError",
    "SettingError",
    "WorldError",
]


class CoreError(Exception):
    """An understandable failure: its text is one clear sentence for the person who caused it."""


class PhotoError(CoreError):
    """A street photo cannot be used."""


class RasterError(CoreError):
    """Aerial imagery cannot be used."""


class GalleryError(CoreError):
    """A gallery folder cannot be used."""


class CheckpointError(CoreError):
    """A model folder or checkpoint cannot be used."""


class WorldError(CoreError):
    """A rendered world cannot be built or read."""


class DataError(CoreError):
    """A data set cannot be used."""


class ParityError(CoreError):
    """Two computations that must agree do not: the program is at fault, or its libraries."""


class SettingError(CoreError):
    """A setting is outside its allowed range."""
