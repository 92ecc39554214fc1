"""The public door of the Python API: ``Localizer.open(...).locate(photo)``."""

from core.gallery.describing import tile_describer
from core.localization.localizer import Localizer, teacher_beside, teacher_for

__all__ = ["Localizer", "teacher_beside", "teacher_for", "tile_describer"]
