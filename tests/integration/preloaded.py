"""What the processes of resume_job.py have in memory when they start: imported once by the server that forks them."""

import torch
import torch._dynamo  # an optimizer imports it, 1 s for each process otherwise

from tests.integration import resume_job as resume_job
from tpo_core.train.strategies.zero import import_deepspeed

import_deepspeed(torch.device("cpu"))
