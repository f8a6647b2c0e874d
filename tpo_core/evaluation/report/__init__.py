"""The report of an evaluation: one page to read and one table to paste, from the results that an evaluation left.

from tpo_core.evaluation.report.write import write_report

write_report("runs/mine/evaluation", examples_of(shards))
"""
