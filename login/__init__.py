"""The login service: users, sessions, and an audit log of the patients that users open."""
