"""Progress bars, where tqdm is installed."""

from collections.abc import Iterable
from typing import Any

try:
    from tqdm import tqdm
except ImportError:

    def tqdm(items: Iterable[Any], **_: Any) -> Iterable[Any]:  # type: ignore[no-redef]
        """The items, without a bar."""
        return items


__all__ = ["tqdm"]
