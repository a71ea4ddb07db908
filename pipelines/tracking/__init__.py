"""MLflow tracking through a spool: stages write journals to disk, an uploader delivers them to MLflow.

A stage never talks to MLflow. So an unreachable or dying tracking server neither stops nor slows a stage, and what
could not be sent stays under `.tracking/` until the next run or `python -m pipelines tracking sync` sends it. Every
step of a delivery may be repeated: whatever is interrupted, nothing is lost and nothing appears twice.
"""

from pipelines.tracking.journal import Journal
from pipelines.tracking.uploader import Delivery, deliver, promotion_result

__all__ = ["Delivery", "Journal", "deliver", "promotion_result"]
