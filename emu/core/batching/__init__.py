"""Machine policies: which prompts and which decodes share the next step."""
