"""Change a model all or nothing: check the result on a tiny input, and restore everything if that fails."""

from sparsekit.surgery.bypass import bypassed, zeroed
from sparsekit.surgery.description import Description
from sparsekit.surgery.failures import failures
from sparsekit.surgery.trial import Trial
from sparsekit.surgery.undo import undo_on_failure

__all__ = ["Description", "Trial", "bypassed", "failures", "undo_on_failure", "zeroed"]
