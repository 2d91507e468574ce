"""How a model is run: one engine with torch, one with OpenVINO, and the choice between them."""
