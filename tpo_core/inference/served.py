"""The code by which MLflow serves a registered model; it is copied beside the weights (models from code).

A row asks `question` about `media`, a path or URI of a video, an image or a folder of frames; the answer is a row of
text, readable (the text with what the heads found in its place), boxes, moments and masks, as `Reply.row` gives them.
"""

from __future__ import annotations

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from tpo_core.inference.assistant import MAX_NEW_TOKENS, load
from tpo_core.inference.reply import Request

COLUMNS = ("text", "readable", "boxes", "moments", "masks")


class Served(PythonModel):
    """A model that answers a table of questions."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the weights that lie beside this code."""
        self._assistant = load(context.artifacts["model"])

    def predict(self, context, model_input, params=None):  # without hints, which MLflow would read as a schema
        """A table of answers, a row a question, in order. params: max_new_tokens."""
        requests = [Request(row["media"], row["question"]) for row in model_input.to_dict("records")]
        limit = (params or {}).get("max_new_tokens", MAX_NEW_TOKENS)
        rows = [reply.row() for reply in self._assistant.chat_batch(requests, max_new_tokens=limit)]
        return pd.DataFrame([{column: row[column] for column in COLUMNS} for row in rows], columns=list(COLUMNS))


set_model(Served())
