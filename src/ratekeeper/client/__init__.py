"""Inside the user's process: transports for the SDKs, and the plain client.

Below an SDK, from the outside in: `http` (ready-made HTTP clients), `transport` (and
its twin `legacy`; `hooks` for Anthropic's middleware), `door` (requests become asks,
refusals answers), `flow` (one attempt as a plan), `attempt` (what its outcome means for
the limits), `decode`.

The plain client: `api` (the two classes), `front` (facts checked once), `call` (a call
with its retries as a plan), `drive` (its drivers), `terms` (what both share); what
comes back: `answers`, `refusals`, `faults`, `chunks`, `stream`; many calls at once:
`bulk`; keys: `keys`, `check`.
"""
