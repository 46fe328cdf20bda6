"""The gateways that are measured beside Ratekeeper, and what measures them."""
