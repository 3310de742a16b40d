// Values in infrastructure blocks, as pydantic reads them in Prefect: `deployment build --override` leaves texts.

import * as v from 'valibot'

/** True, false, or one of pydantic's words and numbers for them. */
export const bool = v.union([
  v.boolean(),
  v.pipe(
    v.union([v.string(), v.number()]),
    v.transform(value => String(value).toLowerCase()),
    v.picklist(['true', 'false', '1', '0', 'yes', 'no', 'on', 'off', 't', 'f', 'y', 'n']),
    v.transform(text => ['true', '1', 'yes', 'on', 't', 'y'].includes(text)),
  ),
])
