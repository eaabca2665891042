"""What a worker has imported before its first job. The process that workers are forked from imports
this once, for all of them."""

from zeronorm.sweep.process import quiet_import

with quiet_import():  # for the jobs to come
    import zeronorm.experiment
    import zeronorm.run_autopsy
    import zeronorm.tracking

    zeronorm.tracking.preload()
