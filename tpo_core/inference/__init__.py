"""Asks a trained model: a video or an image and a question in, text with boxes, moments and masks out.

    from tpo_core.inference.assistant import load

    model = load("runs/mine/multitask/model")
    reply = model.chat("clip.mp4", "When does she open the door?")
    reply.text, reply.moments[0].start_s

`python -m tpo_core.inference --help` shows the command.
"""
