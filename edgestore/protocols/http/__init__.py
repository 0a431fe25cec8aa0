"""One HTTP front with two lanes: what is small, whole and plain is answered in `data_received`, all else reaches
aiohttp."""

from edgestore.protocols.http.front import Front
from edgestore.protocols.http.messages import BodyStream, HotHandler, HotReply, Plan, RequestHead, Response, SlowHandler

__all__ = ["BodyStream", "Front", "HotHandler", "HotReply", "Plan", "RequestHead", "Response", "SlowHandler"]
