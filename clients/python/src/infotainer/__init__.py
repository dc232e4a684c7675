"""A client of infotainer, a durable publish/subscribe server.

```text
 Client ──commands──> task: core (what is wanted) + socket ──WebSocket──> server
 Subscription <──bounded buffer──┘
```

* `Client.publish` returns when the publication is in the log. Many may be under way; what was when a connection ended is sent
  again with the same id, so that it is added once.
* `Client.subscribe` gives a stream that goes on by itself after a reconnect. It drops what it has seen, and tells what is missing.
* With `kind=Kind.QUEUE` it gives a stream of deliveries, which are acknowledged, rejected or extended one by one or many at once.
  What the end of a connection took is told as lost, and never settled on the next one.
* `Client.log` reads what is stored; the rest makes, changes, shows and deletes subscriptions.

When the connection ends, the client comes back after a growing, jittered pause, unless the server does not want it back (close codes
4500 to 4999, refusals such as 403, or a fault of the client): then every operation fails with `Closed`.

Only `ws://` is spoken; for TLS, put a proxy next to the client. What goes wrong is logged by the logger `infotainer`.
"""

from ._token import Token
from .client import Acknowledgement, Client, connect, start
from .delivery import Delivery
from .errors import (
    AlreadySubscribed,
    AnswerNotUnderstood,
    BadUrl,
    Broken,
    Closed,
    ClosedByClient,
    ClosedByPeer,
    ClosedByServer,
    ConnectionFailed,
    ConnectTimedOut,
    EpochEnded,
    GaveUp,
    HandshakeRefused,
    InfotainerError,
    NetworkFailed,
    NotTheProtocol,
    Refused,
    RequestFailed,
    Silent,
    TimedOut,
    TokenFailed,
    TooLarge,
)
from .events import Event, Gap, NotRecovered, Place
from .log import Log
from .protocol import (
    FIRST,
    NEW,
    Acknowledged,
    After,
    Data,
    DeadLetter,
    DeadLetterReason,
    Deleted,
    Durability,
    ErrorCode,
    Extended,
    GapCause,
    Kind,
    Last,
    Limits,
    LogIndex,
    LogPage,
    Publication,
    Rejected,
    RestoredSubscription,
    Retention,
    ServerError,
    Settings,
    SettingsPatch,
    Since,
    Submitted,
    SubscribeFrom,
    SubscriptionMeta,
    SubscriptionReference,
    Welcome,
    subscription_id,
)
from .queue import QueueSubscription
from .reconnect import Reconnect
from .status import Connected, Connecting, Ended, Status, Waiting
from .subscription import Subscription

__all__ = [
    "FIRST",
    "NEW",
    "Acknowledged",
    "Acknowledgement",
    "After",
    "AlreadySubscribed",
    "AnswerNotUnderstood",
    "BadUrl",
    "Broken",
    "Client",
    "Closed",
    "ClosedByClient",
    "ClosedByPeer",
    "ClosedByServer",
    "ConnectTimedOut",
    "Connected",
    "Connecting",
    "ConnectionFailed",
    "Data",
    "DeadLetter",
    "DeadLetterReason",
    "Deleted",
    "Delivery",
    "Durability",
    "Ended",
    "EpochEnded",
    "ErrorCode",
    "Event",
    "Extended",
    "Gap",
    "GapCause",
    "GaveUp",
    "HandshakeRefused",
    "InfotainerError",
    "Kind",
    "Last",
    "Limits",
    "Log",
    "LogIndex",
    "LogPage",
    "NetworkFailed",
    "NotRecovered",
    "NotTheProtocol",
    "Place",
    "Publication",
    "QueueSubscription",
    "Reconnect",
    "Refused",
    "Rejected",
    "RequestFailed",
    "RestoredSubscription",
    "Retention",
    "ServerError",
    "Settings",
    "SettingsPatch",
    "Silent",
    "Since",
    "Status",
    "Submitted",
    "SubscribeFrom",
    "Subscription",
    "SubscriptionMeta",
    "SubscriptionReference",
    "TimedOut",
    "Token",
    "TokenFailed",
    "TooLarge",
    "Waiting",
    "Welcome",
    "connect",
    "start",
    "subscription_id",
]
