// A JSON schema validator for the keywords that oto.v1.json uses; it throws at any other.

const TYPES = {
  object: (v) => v !== null && typeof v === 'object' && !Array.isArray(v),
  array: Array.isArray,
  string: (v) => typeof v === 'string',
  integer: Number.isInteger,
  number: (v) => typeof v === 'number',
  null: (v) => v === null,
  boolean: (v) => typeof v === 'boolean',
};

const RULES = {
  title: () => true,
  description: () => true,
  $schema: () => true,
  $defs: () => true,
  $ref: (rule, v, root) => accepts(rule.slice(2).split('/').reduce((at, name) => at[name], root), v, root),
  oneOf: (rule, v, root) => rule.filter((schema) => accepts(schema, v, root)).length === 1,
  const: (rule, v) => rule === v,
  enum: (rule, v) => rule.includes(v),
  type: (rule, v) => TYPES[rule](v),
  required: (rule, v) => !TYPES.object(v) || rule.every((name) => name in v),
  properties: (rule, v, root) =>
    !TYPES.object(v) || Object.entries(rule).every(([name, schema]) => !(name in v) || accepts(schema, v[name], root)),
  items: (rule, v, root) => !Array.isArray(v) || v.every((item) => accepts(rule, item, root)),
  minimum: (rule, v) => typeof v !== 'number' || v >= rule,
  maximum: (rule, v) => typeof v !== 'number' || v <= rule,
  minItems: (rule, v) => !Array.isArray(v) || v.length >= rule,
  maxItems: (rule, v) => !Array.isArray(v) || v.length <= rule,
  minLength: (rule, v) => typeof v !== 'string' || [...v].length >= rule,
  maxLength: (rule, v) => typeof v !== 'string' || [...v].length <= rule,
};

/** Whether `schema`, a part of the schema `root`, accepts a value. */
export function accepts(schema, value, root) {
  return Object.entries(schema).every(([keyword, rule]) => {
    if (!Object.hasOwn(RULES, keyword)) throw new Error(`the schema uses the keyword "${keyword}", unknown here`);
    return RULES[keyword](rule, value, root);
  });
}
