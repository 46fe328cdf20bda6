"""Official SDKs on their way through the gateway, and a provider that heeds them."""
