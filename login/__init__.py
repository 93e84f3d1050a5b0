"""Who may see the pages: users, sessions, and an audit of the patients that they open."""
