"""Files and tuning jobs: uploads that stream to the store, job documents, and jobs that callers follow."""
