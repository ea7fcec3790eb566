import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** An authority that nobody trusts, and a server's certificate for `name` and 127.0.0.1 that it has signed. */
export function makePrivateAuthority(folder: string, name: string) {
  const openssl = (args: string) => execFileSync('openssl', args.split(' '), { cwd: folder, stdio: 'pipe' })
  const fresh = 'req -newkey rsa:2048 -nodes -days 2'
  openssl(`${fresh} -x509 -subj /CN=Test-CA -keyout ca.key -out ca.pem`)
  openssl(`${fresh} -subj /CN=${name} -keyout server.key -out server.csr`)
  writeFileSync(join(folder, 'names.txt'), `subjectAltName=DNS:${name},IP:127.0.0.1`)
  openssl(
    'x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile names.txt -out server.pem',
  )
  const file = (part: string) => join(folder, part)
  return { caFile: file('ca.pem'), certFile: file('server.pem'), keyFile: file('server.key') }
}
