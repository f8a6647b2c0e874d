"""The report of an evaluation: one page to read and one table to paste, from the results that an evaluation left.

    from tpo_core.evaluation.report.footage import of_parts
    from tpo_core.evaluation.report.write import write_report

    write_report("runs/mine/evaluation", of_parts(shards))

docs/report.md shows what is on the page.
"""
