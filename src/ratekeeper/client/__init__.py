"""Inside the user's process: transports for the SDKs, and the plain client."""
