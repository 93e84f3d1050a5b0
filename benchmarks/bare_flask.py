"""A route that only reads the body and answers. Its cost is the least that a request to Flask can
cost."""

from flask import Flask, Response, request

ANSWER = b"x" * 200  # about as many bytes as the answer for one row

app = Flask(__name__, static_folder=None)


@app.post("/<path:path>")
def answer(path: str) -> Response:
    request.get_data(cache=False)
    return Response(ANSWER, content_type="application/octet-stream")
