"""The gateway: one door for every team, language and SDK."""
