/** Files that a person gives a run to work with. The reference says 5 in one place and 25 in another; 10 MB each in both. */
export const maxAttachments = 25
export const maxAttachmentBytes = 10_000_000
/** Of one request, all of them together. */
export const maxInlineAttachmentsBytes = 50_000_000
/** Of a run that is given more and more of them. */
export const maxAttachmentsOfRun = 200
/** What a person adds to a run's results; as much as an agent may report. */
export const maxArtifactBytes = 100 * 1024 * 1024
