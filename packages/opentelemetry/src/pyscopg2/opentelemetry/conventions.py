"""Names of OpenTelemetry's semantic conventions for database clients.

Those of connection pools are not declared stable, and the package that has them moves and drops
such names: so they are written down here, and a test compares them.
"""

POOL_NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
USED = "used"
IDLE = "idle"

COUNT = "db.client.connection.count"
IDLE_MAX = "db.client.connection.idle.max"
IDLE_MIN = "db.client.connection.idle.min"
MAX = "db.client.connection.max"
PENDING_REQUESTS = "db.client.connection.pending_requests"
TIMEOUTS = "db.client.connection.timeouts"
CREATE_TIME = "db.client.connection.create_time"
WAIT_TIME = "db.client.connection.wait_time"
USE_TIME = "db.client.connection.use_time"

ERROR_TYPE = "error.type"
