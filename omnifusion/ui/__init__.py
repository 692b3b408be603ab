"""The page: a Gradio app over ``driver``. Alone imports gradio."""
