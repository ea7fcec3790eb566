/** Said after `--share`. */
export const sharesWait = 'The share is stored; it takes effect once people can sign in to this control plane.'
