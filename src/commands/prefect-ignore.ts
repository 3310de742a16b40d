// The `.prefectignore` that a folder gets when flows are deployed from it and it has none: what nobody wants in a workspace.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'

export const ignoreFileName = '.prefectignore'

/** As Prefect's own default, by kind. */
const patterns = `# deployments
.prefectignore

# Python
__pycache__/
*.py[cod]
*$py.class
*.egg-info/
*.egg

# type checkers
.mypy_cache/
.dmypy.json
dmypy.json
.pyre/

# IPython
profile_default/
ipython_config.py
*.ipynb_checkpoints/*

# environments
.python-version
.env
.venv
env/
venv/

# macOS
.DS_Store

# Dask
dask-worker-space/

# editors
.idea/
.vscode/

# version control
.git/
.hg/
`

/** Returns the file's path, and whether it was made. */
export async function ensureIgnoreFile(folder: string): Promise<{ readonly file: string; readonly isNew: boolean }> {
  const file = join(folder, ignoreFileName)
  try {
    await writeFile(file, patterns, { flag: 'wx' })
    return { file, isNew: true }
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error
    return { file, isNew: false }
  }
}
