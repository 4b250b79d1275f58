"""The stages in order: export → simplify → calibrate → quantize → validate → report.

Only here are artifacts read and written; the stages take values and give values. Start reading at
whole.py. What others may use is handed on by ``deploy`` itself.
"""
