"""MLflow tracking as an outbox: stages write journals to disk, a sender delivers them to MLflow.

A stage never talks to MLflow. So an unreachable or dying tracking server neither stops nor slows a stage, and what
could not be sent stays under `.tracking/` until the next run or `python -m pipelines tracking sync` sends it. Every
step of a delivery may be repeated: whatever is interrupted, nothing is lost and nothing appears twice.
"""

from pipelines.tracking.journal import Journal
from pipelines.tracking.live import LiveSender
from pipelines.tracking.sender import Delivery, deliver, promotion_result

__all__ = ["Delivery", "Journal", "LiveSender", "deliver", "promotion_result"]
