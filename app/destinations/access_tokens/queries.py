"""The queries of access tokens, typed. `sealed`: what was read of the destination's credentials."""

from app.kit.postgres.query import Affected, Query

claim_refresh = Query[[int, int, bytes, float], Affected]("claim_refresh")
"""(tenant_id, destination_id, sealed, seconds) 0: somebody else asks, or has got one."""
store_grant = Query[[int, int, bytes, bytes, float | None], Affected]("store_grant")
"""(tenant_id, destination_id, sealed, anew, expires_at) 0: the credentials are not any more what was read."""
release_refresh = Query[[int, int, bytes], Affected]("release_refresh")
"""(tenant_id, destination_id, sealed)"""
read_sealed = Query[[int, int], bytes | None]("read_sealed")
"""(tenant_id, destination_id) `None`: the destination was removed."""
