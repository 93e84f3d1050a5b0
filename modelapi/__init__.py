"""The model API: serves predictions of the models in `models/` over HTTP."""
