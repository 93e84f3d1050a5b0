"""The contracts between the services: messages, keys, tables, features, vitals, settings, logs.

Services import this package and never one another. It imports no service.
"""
