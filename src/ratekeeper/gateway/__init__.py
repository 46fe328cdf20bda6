"""The gateway: one door for every team, language and SDK, in front of real accounts.

It forwards bytes and does not translate between APIs. Who calls is decided before a
body is read; a call goes on when every limit on its way grants, all or nothing.
"""
